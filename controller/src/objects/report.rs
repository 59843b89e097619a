//! RuleNodes: what nodes say of themselves.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rulecast_api::RuleNode;

use super::convert::{Convert, Wrong};
use super::{Content, Kind};
use crate::release::NodeReport;

pub(crate) type RawReport = RuleNode;

impl Convert for RuleNode {
    const KIND: Kind = Kind::RuleNode;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn content(self, _: &mut Vec<String>) -> Result<Content, Wrong> {
        // One that has been made and not been filled in says nothing yet.
        let Some(status) = self.status else { return Ok(Content::Ignored) };
        Ok(Content::Report(NodeReport {
            pool: status.pool,
            position: (status.epoch, status.sequence),
            error: status.error.map(|error| error.reason),
            next: status.next,
            held: status.hold.is_some(),
        }))
    }
}
