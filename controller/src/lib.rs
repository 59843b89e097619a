//! rulecast-controller
