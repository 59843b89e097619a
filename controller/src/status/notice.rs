//! What is worth an Event: what changed in a pool's status that somebody should look at.

use rulecast_api::RulePoolStatus;

/// The most Services that are told of at a time; the status lists more.
const MOST_SERVICES: usize = 20;

/// On which object an Event is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// The pool.
    Pool,
    /// A Service, as `namespace/name`.
    Service(String),
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What it is about.
    pub about: About,
    /// Whether something is wrong; else it is no longer.
    pub warning: bool,
    /// A CamelCase word.
    pub reason: String,
    /// For people: the cause and the next step.
    pub message: String,
}

/// What changed from one status to the next. Without one before, all that is wrong.
pub(crate) fn notices(before: Option<&RulePoolStatus>, after: &RulePoolStatus) -> Vec<Notice> {
    let mut notices = Vec::new();
    for condition in &after.conditions {
        let earlier = before.and_then(|s| s.conditions.iter().find(|c| c.type_ == condition.type_));
        let same = earlier.is_some_and(|earlier| is_same(earlier, condition));
        // What is right from the beginning is no news.
        let righted = condition.status == "True" && earlier.is_some_and(is_wrong);
        if same || !is_wrong(condition) && !righted {
            continue;
        }
        notices.push(Notice {
            about: About::Pool,
            warning: !righted,
            reason: condition.reason.clone(),
            message: condition.message.clone(),
        });
    }
    notices.extend(releases(before, after));
    let known = |service: &str, reason: &str| {
        before.is_some_and(|s| s.quarantined.iter().any(|q| q.service == service && q.reason == reason))
    };
    let new = after.quarantined.iter().filter(|q| !known(&q.service, &q.reason));
    notices.extend(new.take(MOST_SERVICES).map(|quarantined| Notice {
        about: About::Service(quarantined.service.clone()),
        warning: true,
        reason: quarantined.reason.clone(),
        message: format!(
            "rulecast keeps the previous rules, or leaves out what it cannot serve: {}",
            quarantined.message
        ),
    }));
    notices
}

/// The conditions that are there only while somebody, or something, keeps new shapes from going live.
const RELEASES: [&str; 5] = ["Held", "HeldByRollback", "ExactReplay", "PendingApproval", "Promoting"];

/// What began and what ended of these. A message that changes is news where it names another shape.
fn releases(before: Option<&RulePoolStatus>, after: &RulePoolStatus) -> Vec<Notice> {
    let find = |status: Option<&RulePoolStatus>, kind: &str| {
        status.and_then(|status| status.conditions.iter().find(|c| c.type_ == kind)).cloned()
    };
    let shape = |status: Option<&RulePoolStatus>| Some(status?.pending.as_ref()?.digest.clone());
    let mut notices = Vec::new();
    for kind in RELEASES {
        let (earlier, now) = (find(before, kind), find(Some(after), kind));
        let same = earlier.is_some() && (kind != "PendingApproval" || shape(before) == shape(Some(after)));
        match (now, earlier) {
            (Some(now), _) if !same => notices.push(Notice {
                about: About::Pool,
                warning: kind != "Promoting",
                reason: now.reason,
                message: now.message,
            }),
            (None, Some(earlier)) => notices.push(Notice {
                about: About::Pool,
                warning: false,
                reason: format!("{kind}Ended"),
                message: format!("since {}: {}", earlier.last_transition_time.0, earlier.message),
            }),
            _ => {}
        }
    }
    notices
}

type Condition = k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The command in a refusal's message changes with what is published.
fn is_same(a: &Condition, b: &Condition) -> bool {
    a.status == b.status && a.reason == b.reason && (b.status == "True" || a.message == b.message)
}

/// Reading takes a moment at every start: nothing is wrong then.
fn is_wrong(condition: &Condition) -> bool {
    condition.status == "False" && condition.reason != "ReadingInputs" && condition.reason != "NotPublished"
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use rulecast_api::QuarantinedService;

    use super::*;

    fn status(conditions: &[(&str, &str, &str, &str)], quarantined: &[&str]) -> RulePoolStatus {
        let condition = |(kind, status, reason, message): &(&str, &str, &str, &str)| Condition {
            type_: (*kind).to_owned(),
            status: (*status).to_owned(),
            reason: (*reason).to_owned(),
            message: (*message).to_owned(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        let service = |name: &&str| QuarantinedService {
            service: (*name).to_owned(),
            reason: "InvalidService".to_owned(),
            message: "no".to_owned(),
        };
        RulePoolStatus {
            conditions: conditions.iter().map(condition).collect(),
            quarantined: quarantined.iter().map(service).collect(),
            ..RulePoolStatus::default()
        }
    }

    fn told(before: Option<&RulePoolStatus>, after: &RulePoolStatus) -> Vec<(bool, String)> {
        notices(before, after).into_iter().map(|n| (n.warning, n.reason)).collect()
    }

    #[test]
    fn what_goes_wrong_is_told_once_and_again_when_it_is_right() {
        let right = status(&[("Ready", "True", "Published", "3 Services are served")], &[]);
        let refused = status(&[("Ready", "False", "ShrinkRefused", "allow=4")], &[]);
        let refused_later = status(&[("Ready", "False", "ShrinkRefused", "allow=5")], &[]);
        let starting = status(&[("Ready", "False", "NotPublished", "")], &[]);
        assert!(told(None, &right).is_empty());
        assert!(told(None, &starting).is_empty());
        assert!(told(Some(&starting), &right).is_empty());
        let warning = vec![(true, "ShrinkRefused".to_owned())];
        assert_eq!(told(Some(&right), &refused), warning);
        assert_eq!(told(None, &refused), warning, "another process may have told, perhaps long ago");
        assert!(told(Some(&refused), &refused).is_empty());
        assert_eq!(told(Some(&refused), &refused_later), warning, "the command is another one");
        assert_eq!(told(Some(&refused), &right), [(false, "Published".to_owned())]);
        let more = status(&[("Ready", "True", "Published", "4 Services are served")], &[]);
        assert!(told(Some(&right), &more).is_empty());
    }

    #[test]
    fn services_are_told_of_when_they_become_unusable_and_not_all_of_thousands() {
        let one = status(&[], &["a/x"]);
        assert_eq!(notices(None, &one)[0].about, About::Service("a/x".to_owned()));
        assert!(notices(Some(&one), &one).is_empty());
        let names: Vec<String> = (0..100).map(|n| format!("a/s{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(notices(Some(&one), &status(&[], &names)).len(), MOST_SERVICES);
    }

    #[test]
    fn what_is_held_and_what_waits_is_told_when_it_begins_and_when_it_ends() {
        let held = status(&[("Held", "True", "Hold", "night shift")], &[]);
        let free = status(&[], &[]);
        assert_eq!(told(Some(&free), &held), [(true, "Hold".to_owned())]);
        assert!(told(Some(&held), &held).is_empty());
        let ended = notices(Some(&held), &free);
        assert_eq!(ended[0].reason, "HeldEnded");
        assert!(!ended[0].warning && ended[0].message.contains("night shift"), "{ended:?}");
        // Another shape that waits is news, the same one is not.
        let waits = |digest: &str| RulePoolStatus {
            pending: Some(rulecast_api::Pending {
                revision: None,
                digest: digest.to_owned(),
                reason: "Approval".to_owned(),
                message: String::new(),
                since: Time(Timestamp::UNIX_EPOCH),
            }),
            ..status(&[("PendingApproval", "True", "WaitsForApproval", "look")], &[])
        };
        assert!(told(Some(&waits("a")), &waits("a")).is_empty());
        assert_eq!(told(Some(&waits("a")), &waits("b")), [(true, "WaitsForApproval".to_owned())]);
        let wave = status(&[("Promoting", "True", "InWaves", "wave 1 of 3")], &[]);
        assert_eq!(told(Some(&free), &wave), [(false, "InWaves".to_owned())]);
    }
}
