//! The guest kernel's modules: their files and dependencies.
//!
//! A package has no `modules.dep`, which is created when a kernel is installed. Each module
//! lists its dependencies in its `.modinfo` section.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::source::contents;
use crate::error::{Error, Result};

const DEPENDS: &[u8] = b"\0depends=";

/// The files of the modules `names` and of all their dependencies, in load order.
pub(super) fn in_order(folder: &Path, names: &[String]) -> Result<Vec<PathBuf>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let builtin = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    let mut modules = Modules {
        builtin: builtin.lines().map(|path| name_of(Path::new(path))).collect(),
        ..Modules::default()
    };
    modules.find(&folder.join("kernel"))?;
    for name in names {
        modules.add(&plain(name))?;
    }
    Ok(modules.order)
}

#[derive(Default)]
struct Modules {
    builtin: BTreeSet<String>,
    files: BTreeMap<String, PathBuf>,
    added: BTreeSet<String>,
    order: Vec<PathBuf>,
}

impl Modules {
    fn find(&mut self, folder: &Path) -> Result<()> {
        let failed = |source| Error::File { path: folder.into(), source };
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                self.find(&path)?;
            } else if path.extension().is_some_and(|extension| extension == "ko") {
                self.files.insert(name_of(&path), path);
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str) -> Result<()> {
        if self.builtin.contains(name) || !self.added.insert(name.into()) {
            return Ok(());
        }
        let path = self.files.get(name).cloned();
        let path = path.ok_or_else(|| Error::NoModule(name.into()))?;
        for needed in needed(&contents(&path)?) {
            self.add(&needed)?;
        }
        self.order.push(path);
        Ok(())
    }
}

/// The dependencies of a module.
fn needed(module: &[u8]) -> Vec<String> {
    let at = module.windows(DEPENDS.len()).position(|bytes| bytes == DEPENDS);
    let text = at.and_then(|at| module.get(at + DEPENDS.len()..)).unwrap_or_default();
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let text = String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned();
    text.split(',').filter(|name| !name.is_empty()).map(plain).collect()
}

fn name_of(path: &Path) -> String {
    plain(&path.file_stem().unwrap_or_default().to_string_lossy())
}

/// A module's name with underscores: the kernel treats `-` and `_` as equal.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_follows_its_dependencies_and_comes_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel/drivers");
        fs::create_dir_all(&path).unwrap();
        for (name, needs) in [("top", "left-one,right"), ("left_one", "base"), ("right", "base")] {
            let text = format!("license=x\0depends={needs}\0name=y\0");
            fs::write(path.join(name).with_extension("ko"), text).unwrap();
        }
        fs::write(path.join("base.ko"), "license=x\0depends=\0depends=never\0").unwrap();
        fs::write(folder.path().join("modules.builtin"), "kernel/fs/ext4/ext4.ko\n").unwrap();
        let order = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_string()).collect();
            let files = in_order(folder.path(), &names)?;
            Ok::<_, Error>(files.iter().map(|path| name_of(path)).collect::<Vec<_>>())
        };
        assert_eq!(order(&["top", "ext4"]).unwrap(), ["base", "left_one", "right", "top"]);
        assert_eq!(order(&["ext4"]).unwrap(), [""; 0]);
        assert!(matches!(order(&["other"]), Err(Error::NoModule(name)) if name == "other"));
    }
}
