use std::fmt;
use std::io;

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

/// What a server says in an error or a notice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `WARNING`, … in English, whatever the server's language.
    pub severity: String,
    /// SQLSTATE, five characters.
    pub code: String,
    /// The first line.
    pub message: String,
    /// More, where the server has more to say.
    pub detail: Option<String>,
    /// The server's own advice.
    pub hint: Option<String>,
}

impl ServerError {
    pub(super) fn read(mut fields: ErrorFields<'_>) -> Result<Self, io::Error> {
        let mut error = Self::default();
        let mut localized = String::new();
        while let Some(field) = fields.next()? {
            let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'V' => error.severity = text,
                b'S' => localized = text,
                b'C' => error.code = text,
                b'M' => error.message = text,
                b'D' => error.detail = Some(text),
                b'H' => error.hint = Some(text),
                _ => {}
            }
        }
        if error.severity.is_empty() {
            error.severity = localized;
        }
        Ok(error)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (SQLSTATE {})", self.severity, self.message, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ServerError {}

/// Why a conversation with a server failed.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The server could not be reached.
    #[error("cannot connect to the server at {target}")]
    Connect {
        /// Host and port, or the socket.
        target: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("the server at {target} did not answer within {seconds} s")]
    ConnectTimeout {
        /// Host and port, or the socket.
        target: String,
        /// `connect_timeout`.
        seconds: u64,
    },
    /// None of several hosts would do.
    #[error("none of {count} hosts could be used; the last one")]
    AllHosts {
        /// How many were tried.
        count: usize,
        /// What the last one said.
        #[source]
        source: Box<Self>,
    },
    /// A server was reached, but not of the kind that `target_session_attrs` asks for.
    #[error("the server at {target} is not what target_session_attrs={wanted} asks for")]
    WrongSession {
        /// Host and port, or the socket.
        target: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// TLS is required and the server has none.
    #[error("the server at {target} does not offer TLS, and sslmode={mode} requires it")]
    NoTls {
        /// Host and port.
        target: String,
        /// The mode.
        mode: &'static str,
    },
    /// The handshake failed; with a verifying mode, mostly because the certificate is not the right one.
    #[error("the TLS handshake with {target} failed")]
    TlsHandshake {
        /// Host and port.
        target: String,
        /// What the TLS library says.
        #[source]
        source: io::Error,
    },
    /// Certificates or keys on this side.
    #[error("{what}")]
    TlsSetup {
        /// What is wrong, with the file's name.
        what: String,
        /// The cause, where there is one.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The login could not go on.
    #[error("cannot log in at {target}: {what}")]
    Login {
        /// Host and port, or the socket.
        target: String,
        /// Why.
        what: String,
    },
    /// The server refused a command or a login.
    #[error("the server refused {action}")]
    Server {
        /// What was asked for, without any secret.
        action: String,
        /// The server's words.
        #[source]
        source: Box<ServerError>,
    },
    /// The connection broke.
    #[error("the connection to the server was lost")]
    Lost(#[source] io::Error),
    /// The server ended the connection without a word.
    #[error("the server closed the connection")]
    Closed,
    /// Something that no known server sends.
    #[error("the server sent {0}, which was not expected here")]
    Protocol(String),
    /// The server is of a version that cannot do this.
    #[error("{what} needs PostgreSQL {needs} or later; this server is {found}")]
    TooOld {
        /// What was asked for.
        what: &'static str,
        /// The first major that can.
        needs: u32,
        /// As the server says it.
        found: String,
    },
}

impl PostgresError {
    /// The server's own words, where it was the server who refused.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server { source, .. } => Some(source),
            Self::AllHosts { source, .. } => source.server(),
            _ => None,
        }
    }

    /// The SQLSTATE, where it was the server who refused.
    pub fn code(&self) -> Option<&str> {
        self.server().map(|e| e.code.as_str())
    }

    pub(super) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol(what.into())
    }
}
