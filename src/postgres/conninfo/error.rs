//! What can be wrong with a connection string, or with the files it names.

/// Why a connection string or its surroundings cannot be used. Never repeats a value that may be secret.
#[derive(Debug, thiserror::Error)]
pub enum ConnInfoError {
    /// The text itself.
    #[error("the connection string cannot be read: {0}")]
    Syntax(&'static str),
    /// libpq has no such key.
    #[error("\"{0}\" is not a connection parameter")]
    UnknownKey(String),
    /// libpq has it; here it cannot be honoured.
    #[error("the connection parameter \"{0}\" is not supported with this value")]
    Unsupported(String),
    /// A value of the wrong kind.
    #[error("the connection parameter \"{key}\" cannot be {}: expected {expected}", shown(key, value))]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is possible.
        expected: &'static str,
    },
    /// Lists of hosts, addresses and ports that do not fit together.
    #[error("{0} hosts, but {1} values of \"{2}\"")]
    Count(usize, usize, &'static str),
    /// A service that no file defines.
    #[error("no service file defines the service \"{0}\"")]
    NoService(String),
    /// A line of a service file.
    #[error("line {line} of the service file {path} cannot be read")]
    ServiceSyntax {
        /// The file.
        path: String,
        /// The line's number.
        line: usize,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Its path.
        path: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// No name to log in with.
    #[error("no user is given, and the operating system has no name for this one")]
    NoUser,
}

/// A URI whose host was forgotten has the password where the port is looked for.
fn shown(key: &str, value: &str) -> String {
    if key == "port" && !value.bytes().all(|b| b.is_ascii_digit()) {
        return "what stands there".to_owned();
    }
    format!("\"{value}\"")
}
