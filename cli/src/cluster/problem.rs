//! What an API server's answers mean, and what to do about them: the one place where they become sentences.

use std::error::Error;
use std::io;

use rulecast_connect::{ClientError, chain, explain};

use super::ClusterArgs;
use super::request::Request;
use crate::output::clean;

/// The most names that are offered instead of one that does not exist.
const OFFERED: usize = 5;

/// Why the API server did not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// There is no usable configuration.
    #[error("{what}\n  next: {next}")]
    NoCluster {
        /// What is wrong.
        what: String,
        /// What to do.
        next: &'static str,
    },
    /// No connection.
    #[error("the API server at {address} cannot be reached: {cause}\n  likely: {likely}\n  next: {next}")]
    Unreachable {
        /// The server's URL.
        address: String,
        /// What the connection said.
        cause: String,
        /// What that usually means.
        likely: &'static str,
        /// What to do.
        next: &'static str,
    },
    /// A connection, but no answer.
    #[error(
        "the API server at {address} did not answer within {seconds} s\n  next: kubectl get --raw /readyz?verbose says \
         which part of it is slow"
    )]
    Silent {
        /// The server's URL.
        address: String,
        /// How long was waited.
        seconds: u64,
    },
    /// 401.
    #[error(
        "the API server at {address} does not know you: the token or certificate is missing, expired or from another \
         cluster\n  next: log in again; kubectl auth whoami says as whom you come, kubectl config view --minify from \
         which file"
    )]
    Unauthorized {
        /// The server's URL.
        address: String,
    },
    /// 403.
    #[error("you may not {what}: {said}\n  needed: a rule {rule}\n  check: kubectl auth can-i {can_i}")]
    Forbidden {
        /// Verb and resource.
        what: String,
        /// What the API server said.
        said: String,
        /// The RBAC rule.
        rule: String,
        /// The arguments of `kubectl auth can-i`.
        can_i: String,
    },
    /// The API server does not have the kind.
    #[error(
        "this cluster has no {kind} of rulecast.dev: rulecast's CRDs are not installed\n  next: kubectl apply -k \
         manifests (everything), or kubectl apply -k crds/yaml (the CRDs alone); kubectl-rulecast check --pre looks \
         whether the cluster is ready for it"
    )]
    NoDefinitions {
        /// The kind.
        kind: String,
    },
    /// No object of this name.
    #[error("there is no {kind} {name}{}", offer(exist.as_deref()))]
    NotFound {
        /// Its kind.
        kind: String,
        /// Its name, with the namespace if it has one.
        name: String,
        /// The names that there are, the closest first; none: that is not known.
        exist: Option<Vec<String>>,
    },
    /// The object is no longer the one that was read.
    #[error("{kind} {name} has changed meanwhile")]
    Conflict {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// Anything else.
    #[error("cannot {what}: {said}")]
    Other {
        /// Verb and resource.
        what: String,
        /// What the API server said.
        said: String,
    },
}

impl Problem {
    /// No object of this name, but of these.
    pub(crate) fn not_found(request: &Request, mut exist: Option<Vec<String>>) -> Self {
        let name = request.name().to_owned();
        closest_first(&name, exist.as_deref_mut().unwrap_or_default());
        Self::NotFound { kind: request.kind.clone(), name, exist }
    }

    pub(super) fn of_configuration(error: &ClientError, args: &ClusterArgs) -> Self {
        let what = clean(&chain(error));
        let next = match error {
            _ if args.kubeconfig.is_some() || args.context.is_some() => {
                "see what is in it: kubectl config get-contexts --kubeconfig FILE"
            }
            ClientError::Infer(_) => "say which cluster: --kubeconfig FILE, or export KUBECONFIG=FILE",
            _ => "see what is in it: kubectl config view --minify",
        };
        Self::NoCluster { what, next }
    }

    pub(super) fn of_answer(error: &kube::Error, request: &Request, address: &str) -> Self {
        let kube::Error::Api(status) = error else { return Self::of_connection(error, request, address) };
        let (kind, name) = (request.kind.clone(), request.name().to_owned());
        match status.code {
            401 => Self::Unauthorized { address: address.to_owned() },
            403 => Self::forbidden(request, &status.message),
            409 => Self::Conflict { kind, name },
            // An object that is missing is named in the answer; a kind that is missing makes it a page of text.
            404 if status.details.as_ref().is_none_or(|details| details.name.is_empty()) => {
                if request.group == rulecast_api::GROUP {
                    Self::NoDefinitions { kind }
                } else {
                    let said = format!("this cluster has no {}", request.resource());
                    Self::Other { what: request.to_string(), said }
                }
            }
            404 => Self::not_found(request, None),
            _ => Self::Other { what: request.to_string(), said: clean(&explain(error)) },
        }
    }

    fn forbidden(request: &Request, said: &str) -> Self {
        let rule = format!(
            "{{apiGroups: [{:?}], resources: [{}], verbs: [{}]}} in a {} that is bound to you",
            request.group,
            request.plural,
            request.verb.as_str(),
            if request.namespace.is_some() { "Role or ClusterRole" } else { "ClusterRole" },
        );
        let namespace = request.namespace.as_ref().map(|n| format!(" -n {n}")).unwrap_or_default();
        let can_i = format!("{} {}{namespace}", request.verb.as_str(), request.resource());
        Self::Forbidden { what: request.to_string(), said: clean(said), rule, can_i }
    }

    fn of_connection(error: &kube::Error, request: &Request, address: &str) -> Self {
        if let kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) = error {
            let said = format!("its answer cannot be read ({}); is it of another version?", chain(error));
            return Self::Other { what: request.to_string(), said: clean(&said) };
        }
        let (likely, next) = likely(error, &chain(error));
        let cause = clean(&root(error));
        Self::Unreachable { address: address.to_owned(), cause, likely, next }
    }
}

/// What a broken connection usually means, and the next step.
fn likely(error: &kube::Error, cause: &str) -> (&'static str, &'static str) {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, TimedOut};
    const WHICH: &str = "compare the address with kubectl config view --minify, and try kubectl cluster-info";
    if cause.contains("certificate") {
        return (
            "the server's certificate is not from the authority that the kubeconfig names, or for another address",
            "compare certificate-authority and server in kubectl config view --minify --raw",
        );
    }
    if cause.contains("dns error") || cause.contains("lookup address") {
        return ("the name in the address does not resolve here", WHICH);
    }
    let reason = io_kind(error);
    match reason {
        Some(ConnectionRefused) => {
            ("nothing listens there: the API server is down, or the port is wrong", WHICH)
        }
        Some(TimedOut) => ("the machine is down, or a firewall or a missing VPN is in between", WHICH),
        Some(ConnectionReset) => {
            ("the API server or a load balancer before it is being restarted", "try again")
        }
        _ if cause.contains("timed out") || cause.contains("deadline") => {
            ("the machine is down, or a firewall or a missing VPN is in between", WHICH)
        }
        _ => ("there is no way to that address from here", WHICH),
    }
}

/// What is at the bottom; the layers above it only say that they failed, too.
fn root(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), root)
}

/// The error of the operating system that is at the bottom.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    let mut found = None;
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            found = Some(io.kind());
        }
        next = error.source();
    }
    found
}

/// Sorts names by how close they are to what was typed; of equally close ones the first in the alphabet comes first.
fn closest_first(name: &str, names: &mut [String]) {
    names.sort_by(|a, b| {
        let distance = |other: &String| strsim::damerau_levenshtein(name, other);
        distance(a).cmp(&distance(b)).then_with(|| a.cmp(b))
    });
}

fn offer(names: Option<&[String]>) -> String {
    match names {
        None => String::new(),
        Some([]) => "; there is none at all".to_owned(),
        Some(names) if names.len() <= OFFERED => format!("; these exist: {}", names.join(", ")),
        Some(names) => {
            format!("; these exist: {} and {} more", names[..OFFERED].join(", "), names.len() - OFFERED)
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use kube::core::response::StatusDetails;
    use rulecast_api::RulePool;

    use super::*;
    use crate::cluster::Verb;

    fn answer(code: u16, message: &str, name: &str) -> kube::Error {
        let details: StatusDetails = serde_json::from_value(serde_json::json!({ "name": name })).unwrap();
        kube::Error::Api(Status::failure(message, "").with_code(code).with_details(details).boxed())
    }

    fn problem(code: u16, message: &str, name: &str) -> Problem {
        let request = Request::of::<RulePool>(Verb::Get).named("defualt");
        Problem::of_answer(&answer(code, message, name), &request, "https://1.2.3.4:6443")
    }

    #[test]
    fn a_missing_right_names_the_rule() {
        let text = problem(403, "rulepools is forbidden", "defualt").to_string();
        assert!(text.starts_with("you may not get rulepools.rulecast.dev defualt: rulepools is forbidden\n"));
        assert!(
            text.contains(r#"{apiGroups: ["rulecast.dev"], resources: [rulepools], verbs: [get]}"#),
            "{text}"
        );
        assert!(text.ends_with("kubectl auth can-i get rulepools.rulecast.dev"), "{text}");
    }

    #[test]
    fn a_missing_kind_is_not_a_missing_object() {
        assert_eq!(
            problem(404, "404 page not found", ""),
            Problem::NoDefinitions { kind: "RulePool".into() }
        );
        assert!(matches!(problem(404, "not found", "defualt"), Problem::NotFound { .. }));
    }

    #[test]
    fn the_closest_names_come_first() {
        let request = Request::of::<RulePool>(Verb::Get).named("defualt");
        let names =
            ["canary", "system", "default", "defaults", "workers", "nodes"].map(String::from).to_vec();
        let text = Problem::not_found(&request, Some(names)).to_string();
        assert_eq!(
            text,
            "there is no RulePool defualt; these exist: default, defaults, canary, nodes, system and 1 more"
        );
    }

    #[test]
    fn a_refused_connection_says_what_that_means() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = kube::Error::Service(Box::new(refused));
        let request = Request::of::<RulePool>(Verb::List);
        let text = Problem::of_answer(&error, &request, "https://1.2.3.4:6443").to_string();
        assert!(text.contains("https://1.2.3.4:6443") && text.contains("nothing listens there"), "{text}");
    }
}
