//! What is pure: the planner, and the rules.

mod planner;
mod rules;
