//! Eyes and ears: what a recording shows, held against what was published.
