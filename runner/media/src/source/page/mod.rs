//! Recording a web page. `guard` is the browser's only way out.

pub mod guard;
