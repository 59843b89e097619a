//! `kubectl-rulecast diff`, `export` and `render` as programs, over directories of manifests.

mod diff;
mod export;
mod manifests;
mod render;
