//! What is pure: the planner, the rules, and what becomes of a view.

mod planner;
mod rules;
mod text;
