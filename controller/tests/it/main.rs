//! The controller from outside, in one program: linking several takes longer than running them.

mod catching_up;
mod common;
mod directories;
mod publisher;
mod releases;
mod rig;
mod running;
mod worktrees;
