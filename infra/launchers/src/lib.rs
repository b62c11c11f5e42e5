//! Where a runner is started. Clouds come behind the same trait (a later issue); here: a child process, and paper.
