//! The SDK's client and the runtime it needs, both made with the first request: a hook that works on a
//! local directory pays for neither.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::S3Options;
use super::error::Failure;

/// A client and its runtime, once there is one.
#[derive(Debug, Default)]
pub(super) struct Connection(Mutex<Option<Open>>);

#[derive(Debug)]
struct Open {
    /// `None` only while it is being dropped.
    runtime: Option<tokio::runtime::Runtime>,
    client: aws_sdk_s3::Client,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting here would panic inside another runtime, and nothing of ours is under way.
            runtime.shutdown_background();
        }
    }
}

impl Connection {
    /// Runs a request on the hidden runtime and waits. By a channel rather than `block_on`, which panics
    /// in a caller that is itself on some runtime.
    pub(super) fn call<T, F>(
        &self,
        options: &S3Options,
        limit: Duration,
        request: impl FnOnce(aws_sdk_s3::Client) -> F,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let (client, handle) = self.open(options)?;
        let request = request(client);
        wait_for(&handle, async move {
            tokio::time::timeout(limit, request).await.unwrap_or_else(|_| Err(Failure::silent(limit)))
        })
        .map_err(|failure| failure.with_place(options))
    }

    fn open(&self, options: &S3Options) -> Result<(aws_sdk_s3::Client, tokio::runtime::Handle), Failure> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_none() {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("pitr-s3")
                .enable_all()
                .build()
                .map_err(|e| {
                    Failure::permanent_from("cannot start the threads that speak to the store", e)
                })?;
            let options = options.clone();
            let client = wait_for(runtime.handle(), async move { connect(&options).await })?;
            *open = Some(Open { runtime: Some(runtime), client });
        }
        match open.as_ref().and_then(|o| Some((o.client.clone(), o.runtime.as_ref()?.handle().clone()))) {
            Some(parts) => Ok(parts),
            None => Err(Failure::permanent("the connection to the store is being closed")),
        }
    }
}

fn wait_for<T: Send + 'static>(
    handle: &tokio::runtime::Handle,
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let (answer, wait) = std::sync::mpsc::sync_channel(1);
    handle.spawn(async move {
        let result = work.await;
        // Nobody waits any more only where the caller's thread is gone.
        drop(answer.send(result));
    });
    wait.recv().unwrap_or_else(|_| Err(Failure::permanent("the request ended without an answer")))
}

async fn connect(options: &S3Options) -> Result<aws_sdk_s3::Client, Failure> {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12());
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    if let Some((key, secret)) = &options.keys {
        loader = loader.credentials_provider(Credentials::new(key, secret, None, None, "pitr"));
    }
    match &options.region {
        Some(region) => loader = loader.region(Region::new(region.clone())),
        // Servers that are not AWS take any region; asking the instance's metadata would cost seconds.
        None if options.endpoint.is_some() => {
            let mut profile = aws_config::profile::region::Builder::default();
            if let Some(name) = &options.profile {
                profile = profile.profile_name(name);
            }
            let known = aws_config::environment::EnvironmentVariableRegionProvider::new();
            let chain = aws_config::meta::region::RegionProviderChain::first_try(known)
                .or_else(profile.build())
                .or_else("us-east-1");
            loader = loader.region(chain);
        }
        None => {}
    }
    let ca_file = options.ca_file.clone().or_else(|| std::env::var_os("AWS_CA_BUNDLE").map(Into::into));
    if let Some(path) = ca_file {
        loader = loader.http_client(http_client(&path)?);
    }
    let shared = loader.load().await;
    if shared.region().is_none() {
        return Err(Failure::permanent("no region is set: set region, AWS_REGION, or the profile's region"));
    }
    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(options.connect_timeout).build())
        // Our own limits know how long a body is.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // The SDK's default trailers break R2, GCS and Ceph; Content-MD5 is checked by all of them.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .force_path_style(options.path_style.unwrap_or(options.endpoint.is_some()));
    if let Some(endpoint) = &options.endpoint {
        config = config.endpoint_url(endpoint);
    }
    Ok(aws_sdk_s3::Client::from_conf(config.build()))
}

/// A client that trusts the certificates in `path` besides the system's: the credentials may still come
/// from a public address.
fn http_client(path: &Path) -> Result<SharedHttpClient, Failure> {
    let pem = std::fs::read(path)
        .map_err(|e| Failure::permanent_from(format!("cannot read the CA file {}", path.display()), e))?;
    match CertificateDer::pem_slice_iter(&pem).next() {
        Some(Ok(_)) => {}
        _ => {
            let text = format!("the CA file {} holds no certificate in PEM form", path.display());
            return Err(Failure::permanent(text));
        }
    }
    let context = TlsContext::builder()
        .with_trust_store(TrustStore::default().with_pem_certificate(pem))
        .build()
        .map_err(|e| Failure::permanent_from("cannot set up TLS", e))?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .tls_context(context)
        .build_https())
}
