//! Whether the custom resources are those of this version.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use kube::ResourceExt as _;
use rulecast_api::VERSION;

use super::Section;
use crate::cluster::{Cluster, Problem};

/// How a definition stands beside this program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    /// The API server does not serve it (yet).
    NotEstablished,
    /// It has no such version.
    OtherVersion,
    /// Its schema is another one.
    OtherSchema,
    Same,
}

const INSTALL: &str = "kubectl apply --server-side -k crds/yaml, of the release that this program is from";

/// All must be there.
pub(super) async fn established(cluster: &Cluster) -> Result<Section, Problem> {
    let mut section = Section::new("custom resources");
    let mut absent = Vec::new();
    for wanted in rulecast_api::crds() {
        let Some(state) = state(cluster, &mut section, &wanted).await? else { continue };
        let name = wanted.name_any();
        match state {
            State::Same => section.good(format!("{name} {VERSION} is established")),
            State::Absent => absent.push(name),
            State::NotEstablished => {
                section.bad(format!("{name} is not served yet"), format!("kubectl describe crd {name}"));
            }
            State::OtherVersion => section.bad(format!("{name} has no version {VERSION}"), INSTALL),
            State::OtherSchema => section.bad(format!("{name} is that of another release"), INSTALL),
        }
    }
    if !absent.is_empty() {
        section.bad(format!("not installed: {}", absent.join(", ")), INSTALL);
    }
    Ok(section)
}

/// Either none is there, or those of this version.
pub(super) async fn installable(cluster: &Cluster) -> Result<Section, Problem> {
    let mut section = Section::new("custom resources");
    let mut absent = 0;
    for wanted in rulecast_api::crds() {
        let Some(state) = state(cluster, &mut section, &wanted).await? else { continue };
        let name = wanted.name_any();
        match state {
            State::Absent => absent += 1,
            State::Same => section.note(format!("{name} {VERSION} is installed already")),
            State::NotEstablished => {
                section
                    .bad(format!("{name} is there but not served"), format!("kubectl describe crd {name}"));
            }
            State::OtherVersion | State::OtherSchema => section.advise(
                format!("{name} is installed and that of another release: installing changes it"),
                INSTALL,
            ),
        }
    }
    if absent > 0 {
        section.good(format!("{absent} of rulecast's CRDs are not there and will be installed"));
    }
    Ok(section)
}

async fn state(
    cluster: &Cluster,
    section: &mut Section,
    wanted: &CustomResourceDefinition,
) -> Result<Option<State>, Problem> {
    let name = wanted.name_any();
    let found = cluster.find::<CustomResourceDefinition>(&name).await;
    let Some(found) = section.take(&name, found)? else { return Ok(None) };
    Ok(Some(found.map_or(State::Absent, |found| compare(&found, wanted))))
}

fn compare(found: &CustomResourceDefinition, wanted: &CustomResourceDefinition) -> State {
    let version = |crd: &CustomResourceDefinition| {
        crd.spec.versions.iter().find(|version| version.name == VERSION && version.served).cloned()
    };
    let conditions = found.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let established = conditions.into_iter().any(|c| c.type_ == "Established" && c.status == "True");
    let Some(found) = version(found) else { return State::OtherVersion };
    let wanted = version(wanted).expect("this program's definitions have their version");
    if schema(&found) != schema(&wanted) || found.selectable_fields != wanted.selectable_fields {
        State::OtherSchema
    } else if established {
        State::Same
    } else {
        State::NotEstablished
    }
}

fn schema(version: &CustomResourceDefinitionVersion) -> Option<serde_json::Value> {
    serde_json::to_value(version.schema.as_ref()?.open_api_v3_schema.as_ref()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn established(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
        crd.status = serde_json::from_value(serde_json::json!({
            "conditions": [{ "type": "Established", "status": "True" }],
        }))
        .unwrap();
        crd
    }

    #[test]
    fn another_release_has_another_schema() {
        for wanted in rulecast_api::crds() {
            assert_eq!(compare(&wanted, &wanted), State::NotEstablished);
            let same = established(wanted.clone());
            assert_eq!(compare(&same, &wanted), State::Same);
            let mut other = same.clone();
            other.spec.versions[0].schema.as_mut().unwrap().open_api_v3_schema.as_mut().unwrap().properties =
                None;
            assert_eq!(compare(&other, &wanted), State::OtherSchema);
            let mut later = same;
            later.spec.versions[0].name = "v9".into();
            assert_eq!(compare(&later, &wanted), State::OtherVersion);
        }
    }
}
