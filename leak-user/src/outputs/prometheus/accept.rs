//! Chooses the format that a scraper prefers.

/// Whether the `Accept` header prefers OpenMetrics to Prometheus's own text format.
pub(super) fn prefers_openmetrics(accept: &str) -> bool {
    let (mut openmetrics, mut text) = (0.0, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let parameter = |name: &str| {
            let mut named =
                parameters.iter().filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
            named.next().map(|(_, value)| value.trim().trim_matches('"'))
        };
        let quality: f64 = parameter("q").map_or(1.0, |q| q.parse().unwrap_or(0.0));
        match media.as_str() {
            "application/openmetrics-text"
                if parameter("version").is_none_or(|version| version == "1.0.0") =>
            {
                openmetrics = quality.max(openmetrics);
            }
            "text/plain" | "text/*" => text = quality.max(text),
            _ => {}
        }
    }
    openmetrics > 0.0 && openmetrics >= text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_qualities() {
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert!(prefers_openmetrics(prometheus));
        assert!(prefers_openmetrics("application/openmetrics-text; version=\"1.0.0\"; q=0.9"));
        for text in [
            "",
            "*/*",
            "text/plain",
            "text/html,application/xml;q=0.9",
            "application/openmetrics-text;q=0.4,text/plain;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=x",
        ] {
            assert!(!prefers_openmetrics(text), "{text}");
        }
    }
}
