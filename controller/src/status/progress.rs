//! The two conditions by which kstatus, and so Flux, tell "not yet" from "never without you":
//! `Reconciling` and `Stalled` (sigs.k8s.io/cli-utils, pkg/kstatus). They are there only while they are True, and never
//! both: kstatus takes the first that it finds.

/// A condition: type; whether it holds, reason, message.
type Stated = (&'static str, (bool, &'static str, String));

/// What follows from the other conditions. None: nothing is on its way, or it waits for somebody who was told so by
/// PendingApproval, Held or HeldByRollback.
pub(super) fn progress(stated: &[Stated]) -> Option<Stated> {
    let find = |wanted: &str| stated.iter().find(|(kind, _)| *kind == wanted).map(|(_, said)| said);
    let not = |kind: &str| find(kind).filter(|(holds, ..)| !holds);
    // Nothing but another spec helps, or somebody's word.
    let stalled =
        not("Accepted").or_else(|| not("Ready").filter(|(_, reason, _)| *reason == "ShrinkRefused"));
    if let Some((_, reason, message)) = stalled {
        return Some(("Stalled", (true, reason, message.clone())));
    }
    let waits = ["PendingApproval", "Held", "HeldByRollback"].into_iter().any(|kind| find(kind).is_some());
    let unready = not("Ready").filter(|(_, reason, _)| *reason != "NothingReleased" || !waits);
    let (_, reason, message) = unready.or_else(|| not("Synced")).or_else(|| find("Promoting"))?;
    Some(("Reconciling", (true, reason, message.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: [(&str, bool, &str); 3] =
        [("Ready", true, "Published"), ("Synced", true, "AllInputsRead"), ("Accepted", true, "Accepted")];

    /// What follows when these take the place of what is said when all is well, or are said besides.
    fn follows(other: &[(&'static str, bool, &'static str)]) -> Option<(&'static str, &'static str)> {
        let right = RIGHT.iter().filter(|(kind, ..)| other.iter().all(|(other, ..)| other != kind));
        let stated: Vec<_> =
            right.chain(other).map(|(kind, holds, why)| (*kind, (*holds, *why, String::new()))).collect();
        progress(&stated).map(|(kind, (holds, reason, _))| {
            assert!(holds);
            (kind, reason)
        })
    }

    #[test]
    fn nothing_is_said_when_all_is_well_or_somebody_is_asked() {
        assert_eq!(follows(&[]), None);
        assert_eq!(follows(&[("PendingApproval", true, "WaitsForApproval")]), None);
        assert_eq!(follows(&[("Held", true, "Hold")]), None);
        assert_eq!(follows(&[("HeldByRollback", true, "Rollback")]), None);
        let nothing = ("Ready", false, "NothingReleased");
        assert_eq!(follows(&[nothing, ("PendingApproval", true, "WaitsForApproval")]), None);
    }

    #[test]
    fn what_goes_on_by_itself_is_reconciling() {
        for (kind, holds, reason) in [
            ("Ready", false, "NotPublished"),
            ("Ready", false, "PublishFailed"),
            ("Ready", false, "NothingReleased"),
            ("Synced", false, "ReadingInputs"),
            ("Promoting", true, "InWaves"),
            ("Promoting", true, "WaitsForProof"),
        ] {
            assert_eq!(follows(&[(kind, holds, reason)]), Some(("Reconciling", reason)));
        }
    }

    #[test]
    fn what_needs_somebody_is_stalled_and_that_comes_first() {
        let invalid = ("Accepted", false, "Invalid");
        assert_eq!(follows(&[invalid]), Some(("Stalled", "Invalid")));
        assert_eq!(follows(&[("Promoting", true, "InWaves"), invalid]), Some(("Stalled", "Invalid")));
        assert_eq!(follows(&[("Ready", false, "ShrinkRefused")]), Some(("Stalled", "ShrinkRefused")));
        let refused = ("Ready", false, "ShrinkRefused");
        assert_eq!(
            follows(&[refused, ("PendingApproval", true, "WaitsForApproval")]),
            Some(("Stalled", "ShrinkRefused"))
        );
    }
}
