use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folder of the workspace that this set-up belongs to.
pub fn checkout() -> Result<PathBuf> {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").context("run it by cargo, as `cargo verify`")?;
    Ok(Path::new(&own).ancestors().nth(2).context("the checkout")?.to_owned())
}

/// One folder outside the checkout for everything that is slow to make: tools, media, builds, logs.
pub struct Cache(PathBuf);

impl Cache {
    pub fn open() -> Result<Self> {
        let folder = match std::env::var_os("SPILLWAY_CACHE") {
            Some(folder) => PathBuf::from(folder),
            None => {
                let home = std::env::var_os("HOME").context("neither SPILLWAY_CACHE nor HOME is set")?;
                std::env::var_os("XDG_CACHE_HOME")
                    .map_or_else(|| Path::new(&home).join(".cache"), PathBuf::from)
                    .join("spillway")
            }
        };
        let cache = Self(folder);
        for name in ["bin", "logs"] {
            let folder = cache.at(name);
            std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        Ok(cache)
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    /// Where cargo builds: as the user says, else outside the checkout, so that a clean clone finds what was built.
    pub fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.at("target"), PathBuf::from)
    }
}
