//! Recursive work on directory trees: list, measure, copy, remove, walk.
//!
//! All of it is synchronous and meant for a blocking thread. Every step goes through a directory handle, so a tree
//! that others change meanwhile can make an operation fail but never lead it outside. Memory and descriptors stay
//! bounded however wide or deep the tree is. Each operation has its own file; they share the descent
//! (`descent`, `stack`), the worker threads (`pool`) and the reports (`report`).

mod control;
mod copy;
mod descent;
mod list;
mod pool;
mod remove;
mod report;
mod stack;
mod usage;
mod walk;

pub use control::{Control, Interrupted, Progress};
pub use copy::{CopyOptions, CopyReport, copy};
pub use list::{List, ListEntry, list};
pub use remove::{RemoveReport, remove_contents, remove_tree};
pub use report::{Problem, Problems, TreeError};
pub use usage::{Usage, usage};
pub use walk::{Walk, WalkEntry, WalkLimits};
