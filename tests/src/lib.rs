//! rulecast-tests
