//! rulecast-bench
