//! What must be the same for one process to work for another: what it was told, and who it is.

use std::path::{Path, PathBuf};

use super::{Global, Settings};

/// Variables that reach a store besides our own keys, by the beginning of their names.
const OF_STORES: &[&str] = &["AWS_", "SSL_CERT_"];

/// As [`OF_STORES`], whole names, in any case.
const OF_THE_NETWORK: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "HOME"];

/// Where the SDK finds keys, below the home directory, unless a variable names another place.
const OF_LOGINS: &[(&str, &str)] =
    &[("AWS_CONFIG_FILE", ".aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")];

impl Settings {
    /// A digest of all that the hooks of a data directory depend on: settings, the variables and files by which a
    /// store is reached, this program's file, and the directory itself. Nothing can be read back from it.
    pub(in crate::cli) fn fingerprint(&self, global: &Global, data_directory: &Path) -> String {
        let mut digest = blake3::Hasher::new();
        let mut add = |text: String| {
            digest.update(&text.len().to_le_bytes());
            digest.update(text.as_bytes());
        };
        add(format!("{:?} {:?} {:?}", env!("CARGO_PKG_VERSION"), self.repositories, self.cluster));
        add(format!("{} {} {:?} {:?}", self.level, self.strict, self.spool, global.system_id));
        add(format!("{:?} {:?} {} {}", self.push_retry, self.get_retry, self.read_ahead, self.prefetch));
        let mut variables: Vec<_> = std::env::vars_os()
            .filter(|(name, _)| {
                let name = name.to_string_lossy();
                OF_STORES.iter().any(|begin| name.starts_with(begin))
                    || OF_THE_NETWORK.iter().any(|known| name.eq_ignore_ascii_case(known))
            })
            .collect();
        variables.sort();
        add(format!("{variables:?}"));
        let home = std::env::home_dir().unwrap_or_default();
        let logins = OF_LOGINS.iter().map(|(variable, usual)| {
            std::env::var_os(variable).map_or_else(|| home.join(usual), PathBuf::from)
        });
        let certificates = self.repositories.iter().filter_map(|(_, options)| options.ca_file.clone());
        for file in logins.chain(certificates).chain(["/proc/self/exe".into()]) {
            add(version(&file));
        }
        add(place(data_directory));
        digest.finalize().to_hex().to_string()
    }
}

/// A file as it is now.
fn version(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(path) {
        Ok(meta) => {
            format!("{} {} {} {}.{:09}", meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())
        }
        Err(_) => "none".to_owned(),
    }
}

/// A directory, by whatever name: another one may be mounted under the same path in another container.
fn place(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path)
        .map_or_else(|_| "none".to_owned(), |meta| format!("{} {}", meta.dev(), meta.ino()))
}
