//! The page: files that are part of the program. They hold nothing of an installation, so anybody may load them; what they show
//! comes from the API, with a token.

/// Type and content of the file at a path below `/console/`; `None`: there is none.
pub fn file(path: &str) -> Option<(&'static str, &'static str)> {
    Some(match path {
        "" => ("text/html; charset=utf-8", include_str!("page/index.html")),
        "style.css" => ("text/css; charset=utf-8", include_str!("page/style.css")),
        "icon.svg" => ("image/svg+xml", include_str!("page/icon.svg")),
        "app.js" => ("text/javascript; charset=utf-8", include_str!("page/app.js")),
        "api.js" => ("text/javascript; charset=utf-8", include_str!("page/api.js")),
        "format.js" => ("text/javascript; charset=utf-8", include_str!("page/format.js")),
        "live.js" => ("text/javascript; charset=utf-8", include_str!("page/live.js")),
        "ledger.js" => ("text/javascript; charset=utf-8", include_str!("page/ledger.js")),
        "targets.js" => ("text/javascript; charset=utf-8", include_str!("page/targets.js")),
        "details.js" => ("text/javascript; charset=utf-8", include_str!("page/details.js")),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A strict policy forbids these anyway; here the mistake is seen without a browser.
    #[test]
    fn no_text_becomes_markup_or_script() {
        for name in ["app.js", "api.js", "format.js", "live.js", "ledger.js", "targets.js", "details.js"] {
            let (kind, text) = file(name).unwrap();
            assert!(kind.starts_with("text/javascript"), "{name}");
            for risk in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
                assert!(!text.contains(risk), "{name} has {risk}");
            }
            for line in text.lines().filter(|line| line.starts_with("import ")) {
                let from = line.rsplit("'./").next().and_then(|rest| rest.strip_suffix("';")).unwrap_or_default();
                assert!(file(from).is_some(), "{name}: {line}");
            }
        }
        let (_, page) = file("").unwrap();
        for in_line in ["onclick=", "onload=", "onerror=", "onsubmit=", "style=", "<style", "javascript:"] {
            assert!(!page.contains(in_line), "{in_line}");
        }
        assert_eq!(page.matches("<script").count(), page.matches("<script type=\"module\" src=\"").count());
        assert!(file("../index.html").is_none() && file("index.html").is_none());
    }
}
