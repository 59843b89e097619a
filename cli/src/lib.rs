//! kubectl-rulecast
