//! The revisions of a pool, and which of them is what.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use rulecast_api::{Release, RulePool, RuleRevision};
use serde::Serialize;

/// A revision beside its pool.
#[derive(Serialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RevisionRow {
    /// Its number.
    pub(crate) number: u64,
    /// The digest of its shape.
    pub(crate) digest: String,
    /// Whether the RuleRevision is there to go back to. One that was live and was cleaned up is not.
    pub(crate) exists: bool,
    /// Live, Pinned, Approved, Pending.
    pub(crate) marks: Vec<&'static str>,
    /// When it was made.
    pub(crate) created: Option<Timestamp>,
    /// The revision before it.
    pub(crate) parent: Option<u64>,
    /// How many Services it has.
    pub(crate) services: Option<u32>,
    /// The sequence that had it first when it went live last.
    pub(crate) live_since_sequence: Option<u64>,
    /// When that was.
    pub(crate) live_since: Option<Timestamp>,
    /// Why it went live then.
    pub(crate) live_by: Option<String>,
    /// The objects whose change led to it.
    pub(crate) cause: Vec<String>,
}

/// All revisions of a pool, the newest first: those that exist, and those that were live and are gone.
pub(crate) fn revisions(pool: &RulePool, existing: &[RuleRevision]) -> Vec<RevisionRow> {
    let status = pool.status.clone().unwrap_or_default();
    let mut rows: BTreeMap<u64, RevisionRow> = BTreeMap::new();
    for revision in existing {
        let spec = &revision.spec;
        rows.insert(
            spec.number,
            RevisionRow {
                exists: true,
                created: Some(spec.created.0),
                parent: spec.parent,
                services: Some(spec.services),
                cause: spec.cause.clone(),
                ..gone(spec.number, &spec.digest)
            },
        );
    }
    // Newest first, so the first release of a revision is its last one.
    for release in &status.releases {
        let Some(number) = release.revision else { continue };
        let row = rows.entry(number).or_insert_with(|| gone(number, &release.digest));
        if row.live_since.is_none() {
            row.live_since = Some(release.at.0);
            row.live_since_sequence = Some(release.sequence);
            row.live_by = Some(release.reason.clone());
        }
    }
    for row in rows.values_mut() {
        row.marks = marks(pool, row.number, &row.digest);
    }
    rows.into_values().rev().collect()
}

fn gone(number: u64, digest: &str) -> RevisionRow {
    RevisionRow {
        number,
        digest: digest.to_owned(),
        exists: false,
        marks: Vec::new(),
        created: None,
        parent: None,
        services: None,
        live_since_sequence: None,
        live_since: None,
        live_by: None,
        cause: Vec::new(),
    }
}

/// What a revision is to its pool.
pub(crate) fn marks(pool: &RulePool, number: u64, digest: &str) -> Vec<&'static str> {
    let status = pool.status.clone().unwrap_or_default();
    // An approval of a digest alone is for whichever revision has it.
    let approved = pool.spec.approved.as_ref();
    let approved = approved.is_some_and(|a| a.digest == digest && a.revision.is_none_or(|r| r == number));
    let pending = status.pending.as_ref().is_some_and(|p| p.revision == Some(number) || p.digest == digest);
    let marks = [
        (status.revision == Some(number), "Live"),
        (pool.spec.pinned_revision == Some(number), "Pinned"),
        (approved, "Approved"),
        (pending, "Pending"),
    ];
    marks.into_iter().filter(|(holds, _)| *holds).map(|(_, mark)| mark).collect()
}

/// The release that a sequence belongs to; none: it is older than what is listed.
pub(crate) fn release_of(releases: &[Release], epoch: u64, sequence: u64) -> Option<&Release> {
    releases.iter().find(|release| (release.epoch, release.sequence) <= (epoch, sequence))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{digest, fleet, revision};
    use super::*;

    #[test]
    fn a_sequence_belongs_to_the_release_before_it() {
        let fleet = fleet();
        let releases = &fleet.pools["default"].status.as_ref().unwrap().releases;
        let of = |epoch, sequence| release_of(releases, epoch, sequence).and_then(|r| r.revision);
        assert_eq!(
            [of(0, 40), of(0, 30), of(0, 29), of(0, 1), of(0, 0)],
            [Some(3), Some(3), Some(2), Some(1), None]
        );
        assert_eq!(of(1, 2), Some(3));
    }

    #[test]
    fn marks_and_what_is_gone() {
        let mut pool = fleet().pools["default"].clone();
        pool.spec.pinned_revision = Some(2);
        let status = pool.status.as_mut().unwrap();
        status.pending = serde_json::from_value(serde_json::json!({
            "revision": 4, "digest": digest(4), "reason": "Rollback", "since": "2026-01-01T00:00:00Z",
        }))
        .unwrap();
        let rows = revisions(&pool, &[revision(2), revision(3), revision(4)]);
        let brief: Vec<_> = rows.iter().map(|r| (r.number, r.exists, r.marks.join(","))).collect();
        let wanted = [(4, true, "Pending"), (3, true, "Live"), (2, true, "Pinned"), (1, false, "")];
        assert_eq!(brief, wanted.map(|(n, e, m)| (n, e, m.to_owned())));
        assert_eq!(rows[1].live_since_sequence, Some(30));
        assert_eq!(rows[0].live_since_sequence, None);
    }
}
