//! Writes the custom resource definitions: `crdgen DIR`.

use std::path::Path;
use std::{env, fs, process};

fn main() {
    let Some(dir) = env::args().nth(1) else {
        eprintln!("usage: crdgen DIR");
        process::exit(2);
    };
    for crd in rulecast_api::crds() {
        let path = Path::new(&dir).join(rulecast_api::file_name(&crd));
        if let Err(error) = fs::write(&path, rulecast_api::yaml(&crd)) {
            eprintln!("crdgen: {}: {error}", path.display());
            process::exit(1);
        }
        println!("{}", path.display());
    }
}
