//! Two directories of manifests that differ in one Service.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{ended, run};
use crate::cluster::{Cluster, Size};
use crate::objects;

/// The times of `diff` between them: with a file for each Service, and with all of them in one List.
pub(super) fn measure(cluster: &Cluster, size: Size, repeat: u32) -> Result<[Vec<Duration>; 2]> {
    let dir = tempfile::Builder::new().prefix("rulecast-review-").tempdir()?;
    let mut services: Vec<Value> = (0..size.services).map(|n| objects::service(cluster, n)).collect();
    let names =
        ["files/before", "files/after", "list/before", "list/after"].map(|name| dir.path().join(name));
    for (n, folder) in names.iter().enumerate() {
        if n % 2 == 1 {
            services[0]["spec"]["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": 100 } });
            services[0]["spec"]["sessionAffinity"] = "ClientIP".into();
        } else {
            services[0] = objects::service(cluster, 0);
        }
        fs::create_dir_all(folder)?;
        if n < 2 {
            for (number, service) in services.iter().enumerate() {
                fs::write(folder.join(format!("{number}.yaml")), serde_saphyr::to_string(service)?)?;
            }
        } else {
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": services });
            fs::write(folder.join("services.yaml"), serde_saphyr::to_string(&list)?)?;
        }
    }
    let times = |before: &Path, after: &Path| -> Result<Vec<Duration>> {
        let (before, after) = (before.display().to_string(), after.display().to_string());
        let mut times = Vec::new();
        for _ in 0..repeat {
            let (output, took) = run(&["diff", &before, &after])?;
            ended(&output, 1)?;
            times.push(took);
        }
        Ok(times)
    };
    Ok([times(&names[0], &names[1])?, times(&names[2], &names[3])?])
}
