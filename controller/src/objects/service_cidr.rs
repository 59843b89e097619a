//! ServiceCIDRs: the ranges that cluster IPs come from.

use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

use super::convert::{Convert, Wrong, nullable};
use super::{Content, Kind, text};

#[derive(Resource, Deserialize, Debug, Clone)]
#[resource(inherit = "networking::ServiceCIDR")]
pub(crate) struct RawServiceCidr {
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "nullable")]
    spec: Spec,
}

#[derive(Deserialize, Debug, Clone, Default)]
#[serde(default)]
struct Spec {
    #[serde(deserialize_with = "nullable")]
    cidrs: Vec<String>,
}

impl Convert for RawServiceCidr {
    const KIND: Kind = Kind::ServiceCidr;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn content(self, _: &mut Vec<String>) -> Result<Content, Wrong> {
        let read = |(i, cidr): (usize, &String)| {
            text::prefix(cidr)
                .ok_or_else(|| Wrong::new(format!("spec.cidrs[{i}]"), format!("{cidr:?} is not a CIDR")))
        };
        Ok(Content::ServiceCidr(self.spec.cidrs.iter().enumerate().map(read).collect::<Result<_, _>>()?))
    }
}
