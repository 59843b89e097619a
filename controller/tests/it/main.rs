//! The controller from outside, in one program: linking several takes longer than running them.

mod common;
mod directories;
mod publisher;
mod running;
