//! What a RulePool's status says, and what Events tell of it.

mod limits;
mod notice;
mod progress;
mod writer;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use rulecast_api::{MAX_QUARANTINED, QuarantinedService, RulePoolStatus};
use rulecast_compiler::PoolBundle;

use crate::objects::{Kind, ObjectId};
use crate::publisher::Published;
use crate::release::Released;

use progress::progress;

pub(crate) use limits::{Use, uses};
pub(crate) use notice::notices;
pub use notice::{About, Notice};
pub use writer::{ClusterStatus, NoStatus, StatusWriter};

/// What a status is made from.
pub(crate) struct Report<'a> {
    pub(crate) synced: bool,
    /// `metadata.generation` of the RulePool that is compiled, and its conditions so far.
    pub(crate) generation: Option<i64>,
    pub(crate) before: &'a [Condition],
    /// Why the RulePool as it is now cannot be used.
    pub(crate) rejected: Option<&'a str>,
    pub(crate) bundle: Option<&'a PoolBundle>,
    pub(crate) published: Option<&'a Published>,
    pub(crate) released: Option<Released>,
    pub(crate) error: Option<&'a str>,
    pub(crate) quarantined: &'a BTreeMap<ObjectId, String>,
}

impl Report<'_> {
    pub(crate) fn status(&self) -> RulePoolStatus {
        let mut quarantined = self.quarantined_services();
        let quarantined_count = count(quarantined.len());
        quarantined.truncate(MAX_QUARANTINED);
        let stats = self.bundle.map(PoolBundle::stats).unwrap_or_default();
        let head = self.published.map(|published| &published.head);
        let released = self.released.clone().unwrap_or_default();
        RulePoolStatus {
            observed_generation: self.generation,
            conditions: self.conditions(),
            sequence: head.map_or(0, |head| head.sequence),
            epoch: head.map_or(0, |head| head.epoch),
            digest: head.map(|head| head.digest.clone()),
            revision: released.revision,
            shape: released.shape,
            pending: released.pending,
            releases: released.releases,
            services: count(stats.services),
            endpoints: count(stats.endpoints),
            groups: count(stats.groups),
            records: count(self.bundle.map_or(0, |bundle| bundle.bundle().len())),
            checkpoint_bytes: self.published.map_or(0, |published| published.checkpoint_bytes() as u64),
            quarantined,
            quarantined_count,
        }
    }

    fn conditions(&self) -> Vec<Condition> {
        let accepted = match self.rejected {
            Some(problem) => (false, "Invalid", problem.to_owned()),
            None => match self.released.as_ref().and_then(|released| released.problem.clone()) {
                Some((reason, problem)) => (false, reason, problem),
                None => (true, "Accepted", String::new()),
            },
        };
        let synced = if self.synced {
            (true, "AllInputsRead", String::new())
        } else {
            (false, "ReadingInputs", "not everything has been listed yet".to_owned())
        };
        let released = self.released.as_ref();
        let ready = if let Some(shrink) = released.and_then(|released| released.shrink.clone()) {
            (false, "ShrinkRefused", shrink)
        } else if let Some(error) = self.error {
            (false, "PublishFailed", error.to_owned())
        } else if let Some(published) = self.published {
            (true, "Published", format!("{} Services are served", published.services()))
        } else if let Some(pending) = released.and_then(|released| released.pending.as_ref()) {
            (false, "NothingReleased", pending.message.clone())
        } else {
            (false, "NotPublished", "nothing has been published yet".to_owned())
        };
        let releases = released.map(|released| released.conditions.clone()).unwrap_or_default();
        let releases = releases.into_iter().map(|(kind, reason, message)| (kind, (true, reason, message)));
        let main = [("Ready", ready), ("Synced", synced), ("Accepted", accepted)];
        let stated: Vec<_> = main.into_iter().chain(releases).collect();
        let progress = progress(&stated);
        stated
            .into_iter()
            .chain(progress)
            .chain(self.external_ips().map(|ignored| ("ExternalIPsServed", ignored)))
            .chain(self.near_limits().map(|near| ("WithinLimits", near)))
            .map(|(kind, (holds, reason, message))| self.condition(kind, holds, reason, &message))
            .collect()
    }

    /// Said only where it matters: Services ask for externalIPs and do not get them.
    fn external_ips(&self) -> Option<(bool, &'static str, String)> {
        let services = self.bundle?.ignored_external_ips();
        let first: Vec<&str> = services.iter().take(5).map(|name| &**name).collect();
        let more = if services.len() > first.len() { ", …" } else { "" };
        let message = format!(
            "the externalIPs of {} Services are not served ({}{more}): remove them from the Services, or set \
             allowServiceExternalIPs: true in this RulePool",
            services.len(),
            first.join(", "),
        );
        (!services.is_empty()).then_some((false, "NotAllowed", message))
    }

    /// Said only where a limit is near: beyond it nothing would be published.
    fn near_limits(&self) -> Option<(bool, &'static str, String)> {
        let near: Vec<String> = uses(self.bundle?, self.published)
            .into_iter()
            .filter(Use::is_near)
            .map(|near| near.to_string())
            .collect();
        (!near.is_empty()).then(|| (false, "NearLimit", near.join("; ")))
    }

    fn condition(&self, kind: &str, holds: bool, reason: &str, message: &str) -> Condition {
        let status = if holds { "True" } else { "False" };
        let same = self.before.iter().find(|c| c.type_ == kind && c.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: shorten(message, 1024),
            observed_generation: self.generation,
            last_transition_time: same
                .map_or_else(|| Time(Timestamp::now()), |condition| condition.last_transition_time.clone()),
        }
    }

    fn quarantined_services(&self) -> Vec<QuarantinedService> {
        let mut all: BTreeMap<String, (&str, String)> = BTreeMap::new();
        for (service, problem) in self.bundle.map(PoolBundle::problems).into_iter().flatten() {
            all.insert(service.clone(), ("NotCompiled", problem.clone()));
        }
        for (id, problem) in self.quarantined {
            let reason = match id.kind {
                Kind::Service => "InvalidService",
                Kind::EndpointSlice => "InvalidEndpointSlice",
                _ => continue,
            };
            all.insert(id.name.clone(), (reason, problem.clone()));
        }
        let entry = |(service, (reason, message)): (String, (&str, String))| QuarantinedService {
            service: shorten(&service, 127),
            reason: reason.to_owned(),
            message: shorten(&message, 512),
        };
        all.into_iter().map(entry).collect()
    }
}

fn count(number: usize) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

fn shorten(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['…']).collect()
}

/// Whether somebody waits for the difference: that of numbers alone can wait longer.
pub(crate) fn is_urgent(before: &RulePoolStatus, after: &RulePoolStatus) -> bool {
    let gist = |status: &RulePoolStatus| {
        let conditions: Vec<_> =
            status.conditions.iter().map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone())).collect();
        let pending = status.pending.as_ref().map(|pending| (pending.digest.clone(), pending.revision));
        let releases = (status.revision, pending, status.releases.len());
        (
            conditions,
            status.observed_generation,
            status.quarantined.clone(),
            status.quarantined_count,
            releases,
        )
    };
    gist(before) != gist(after)
}
