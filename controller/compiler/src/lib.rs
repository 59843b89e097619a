//! rulecast-compiler
