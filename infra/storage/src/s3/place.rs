//! Locations of objects, as livekit/storage writes them since June 2026. Pure: endpoint, bucket and key go in, a URL comes
//! out.

use spillway_plan::destination::{S3, without_user};

use crate::escape::escaped;

/// How the URLs of a bucket's objects begin.
pub struct ObjectUrl {
    host: String,
    bucket: String,
    path_style: bool,
}

impl ObjectUrl {
    /// Of this destination's bucket.
    pub fn of(s3: &S3) -> Self {
        let endpoint = without_user(&s3.endpoint);
        let host = without_scheme(&endpoint);
        let host = if host.is_empty() { "s3.amazonaws.com" } else { host };
        Self { host: host.to_owned(), bucket: s3.bucket.clone(), path_style: s3.force_path_style }
    }

    /// Host and port of the endpoint.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The location of an object.
    pub fn of_key(&self, key: &str) -> String {
        let Self { host, bucket, path_style } = self;
        let key = escaped(key);
        if *path_style { format!("https://{host}/{bucket}/{key}") } else { format!("https://{bucket}.{host}/{key}") }
    }
}

/// Host and port, and a path if there is one.
fn without_scheme(endpoint: &str) -> &str {
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://")).unwrap_or(endpoint);
    rest.trim_end_matches('/')
}

/// The region in an OSS endpoint: `oss-cn-hangzhou[-internal].aliyuncs.com` → `cn-hangzhou`; empty where there is none.
pub fn region_of_oss(endpoint: &str) -> String {
    let host = without_scheme(endpoint);
    let name = host.split('.').find_map(|label| label.strip_prefix("oss-")).unwrap_or_default();
    name.trim_end_matches("-internal").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_livekits() {
        let place = |endpoint: &str, force_path_style| {
            let s3 = S3 { bucket: "b".into(), endpoint: endpoint.into(), force_path_style, ..S3::default() };
            ObjectUrl::of(&s3).of_key("dir/my file.mp4")
        };
        assert_eq!(place("", false), "https://b.s3.amazonaws.com/dir/my%20file.mp4");
        assert_eq!(place("", true), "https://s3.amazonaws.com/b/dir/my%20file.mp4");
        assert_eq!(place("http://minio:9000", false), "https://b.minio:9000/dir/my%20file.mp4");
        assert_eq!(place("https://minio:9000/", true), "https://minio:9000/b/dir/my%20file.mp4");
        assert_eq!(place("minio", true), "https://minio/b/dir/my%20file.mp4");
        assert_eq!(place("https://me:canary@minio:9000", true), "https://minio:9000/b/dir/my%20file.mp4");
    }

    #[test]
    fn the_region_of_oss_is_in_its_endpoint() {
        for endpoint in [
            "https://oss-cn-hangzhou.aliyuncs.com",
            "oss-cn-hangzhou-internal.aliyuncs.com",
            "s3.oss-cn-hangzhou.aliyuncs.com",
        ] {
            assert_eq!(region_of_oss(endpoint), "cn-hangzhou");
        }
        assert_eq!(region_of_oss("http://127.0.0.1:5000"), "");
    }
}
