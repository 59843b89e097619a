//! `kubectl-rulecast diff` and `export` as programs, over directories of manifests.

mod diff;
mod export;
mod manifests;
