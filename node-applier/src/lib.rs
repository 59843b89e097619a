//! rulecast-node
