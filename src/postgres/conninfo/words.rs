//! Parameters that take one of a few words.

use super::ConnInfoError;

macro_rules! words {
    ($(#[$meta:meta])* $name:ident, $key:literal, $expected:literal, { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            pub(super) fn parse(text: &str) -> Result<Self, ConnInfoError> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(ConnInfoError::Value { key: $key, value: text.to_owned(), expected: $expected }),
                }
            }

            /// As it is written in a connection string.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

words!(
    /// How much TLS is asked for. Ordered by strictness.
    SslMode, "sslmode", "disable, allow, prefer, require, verify-ca or verify-full", {
        /// None.
        Disable = "disable",
        /// Only where the server insists.
        Allow = "allow",
        /// Where the server has it.
        Prefer = "prefer",
        /// Always; the certificate is checked only where there is a root certificate.
        Require = "require",
        /// Always, with a certificate of a known authority.
        VerifyCa = "verify-ca",
        /// Always, with a certificate of a known authority for this host.
        VerifyFull = "verify-full",
    }
);

words!(
    /// How TLS begins.
    SslNegotiation, "sslnegotiation", "postgres or direct", {
        /// PostgreSQL's request first.
        Postgres = "postgres",
        /// TLS from the first byte (17 and later).
        Direct = "direct",
    }
);

words!(
    /// Whether the login must be bound to the TLS connection.
    ChannelBindingMode, "channel_binding", "disable, prefer or require", {
        /// Never.
        Disable = "disable",
        /// Where both sides can.
        Prefer = "prefer",
        /// Always: anything else is refused before a password is sent.
        Require = "require",
    }
);

words!(
    /// Which of several servers will do.
    SessionAttrs, "target_session_attrs",
    "any, read-write, read-only, primary, standby or prefer-standby", {
        /// The first that answers.
        Any = "any",
        /// Not in recovery.
        ReadWrite = "read-write",
        /// In recovery.
        ReadOnly = "read-only",
        /// Not in recovery.
        Primary = "primary",
        /// In recovery.
        Standby = "standby",
        /// In recovery, or else any.
        PreferStandby = "prefer-standby",
    }
);
