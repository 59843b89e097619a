//! What people read of a shape: which Services it serves and how, and what is different between two shapes.
//!
//! A description is made from a Service's records alone, in the words of Kubernetes' Service, so that what was compiled is
//! reviewed and not what somebody meant. Nothing is left out of it: two sets of records have one description only if they
//! are equal ([`ServiceDescription::exceptions`] holds what no Service field can say).
//!
//! There is no Kubernetes client, clock or file in here.

mod compare;
mod difference;
mod expand;
mod facts;
mod markdown;
mod membership;
mod options;
mod plain;
mod pool;
mod service;
mod shape;
mod text;

pub use compare::FieldChange;
pub use difference::{ChangeKind, Difference, MAX_LINE, ServiceChange, diff};
pub use membership::{EndpointChange, MembershipChange, MembershipDifference, membership};
pub use pool::{PoolDescription, RulesDescription};
pub use service::{Policy, PortDescription, ServiceDescription, SessionAffinity};
pub use shape::{ShapeDescription, describe};
