//! rulecast-api
