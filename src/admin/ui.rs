//! The dashboard's files, which the binary carries. They ask the same API as everybody else.

/// A file: where it lies, of what kind it is, and what is in it.
pub type File = (&'static str, &'static str, &'static str);

const FILES: &[File] = &[
    ("/", "text/html; charset=utf-8", include_str!("ui/index.html")),
    ("/ui/app.js", "text/javascript; charset=utf-8", include_str!("ui/app.js")),
    ("/ui/style.css", "text/css; charset=utf-8", include_str!("ui/style.css")),
    // uPlot 1.6.32, https://github.com/leeoniya/uPlot
    ("/ui/uplot.min.js", "text/javascript; charset=utf-8", include_str!("ui/uplot.min.js")),
    ("/ui/uplot.min.css", "text/css; charset=utf-8", include_str!("ui/uplot.min.css")),
    ("/ui/uplot.LICENSE", "text/plain; charset=utf-8", include_str!("ui/uplot.LICENSE")),
];

/// Nothing of others is loaded, and nobody may show the page in theirs.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The file at a path.
pub fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|(at, ..)| *at == path)
}
