//! Lists this node's pods at its kubelet, static pods included, without the API server.

use std::convert::Infallible;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use kube::{Client, Config};
use tokio::time::{sleep, timeout};

use crate::sources::kubernetes::answers::Answers;
use crate::sources::kubernetes::directory::Directory;
use crate::sources::kubernetes::error::AskError;
use crate::sources::kubernetes::settings::Kubernetes;

/// Pause between two requests: the kubelet has no watches.
const PERIOD: Duration = Duration::from_secs(10);
/// Time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Most bytes of an answer. 110 pods take about 1 MB.
const MAX_ANSWER: usize = 64 << 20;

/// Asks every [`PERIOD`] until something fails.
pub(super) async fn ask(
    settings: &Kubernetes,
    answers: &mut Answers<'_>,
) -> Result<Infallible, AskError> {
    let client = Client::try_from(config(settings)?)?;
    loop {
        let answer = timeout(TIMEOUT, list(&client)).await;
        let pods = answer.map_err(|_| AskError::TooSlow(TIMEOUT))??;
        let mut known = Directory::default();
        for pod in &pods.items {
            known.put(pod, &settings.pod_label);
        }
        answers.replace(known);
        sleep(PERIOD).await;
    }
}

/// With `http`, the token is not sent.
fn config(settings: &Kubernetes) -> Result<Config, AskError> {
    let url = settings.kubelet_url.clone();
    if url.scheme_str() == Some("http") {
        return Ok(Config::new(url));
    }
    // Only for the token and the cluster's CA; the URL is replaced.
    let pod = Config::incluster_dns();
    let mut config = pod.map_err(|error| AskError::Credentials(error.into()))?;
    config.cluster_url = url;
    config.accept_invalid_certs = settings.kubelet_insecure_tls;
    Ok(config)
}

async fn list(client: &Client) -> Result<List<Pod>, AskError> {
    let request = Request::get("/pods").body(Body::empty()).map_err(kube::Error::HttpError)?;
    let answer = client.send(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER);
    let body = body.collect().await.map_err(AskError::Unreadable)?.to_bytes();
    if status.is_success() {
        return Ok(serde_json::from_slice(&body)?);
    }
    let words = String::from_utf8_lossy(body.get(..200).unwrap_or(&body));
    Err(AskError::Refused(format!("{status}: {}", words.trim().escape_debug())))
}
