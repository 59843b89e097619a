//! Names that become paths.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

/// A Service's file in its pool's folder. Names are data: what Kubernetes would not take for a name is not taken here, so
/// that no name leads out of the tree, and none is a hidden file.
pub(super) fn path(service: &str) -> anyhow::Result<PathBuf> {
    let (namespace, name) = service.split_once('/').context("it has no namespace")?;
    ensure!(is_label(namespace), "{namespace:?} is no namespace: a DNS label is wanted");
    // With the ending it has to fit into the 255 bytes of a file's name.
    let good = name.len() <= 250 && name.split('.').all(is_label);
    ensure!(good, "{name:?} is no name: DNS labels are wanted, with dots between them");
    Ok(["services", namespace, &format!("{name}.yaml")].iter().collect())
}

/// RFC 1123, as Kubernetes checks it.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_become_paths() {
        assert_eq!(path("prod/web-1").unwrap(), PathBuf::from("services/prod/web-1.yaml"));
        assert_eq!(path("prod/a.b").unwrap(), PathBuf::from("services/prod/a.b.yaml"));
        for bad in [
            "web",
            "/web",
            "prod/",
            "../web",
            "prod/..",
            "prod/.",
            "prod/a/b",
            "prod/../../x",
            "prod/.hidden",
            "prod/a..b",
            "Prod/web",
            "prod/WEB",
            "prod/a b",
            "prod/a\nb",
            "prod/a\0",
            "prod/-a",
            "prod/a\\b",
            "./x",
            &format!("{}/a", "n".repeat(64)),
            &format!("a/{}", ["x"; 126].join(".")),
        ] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }
}
