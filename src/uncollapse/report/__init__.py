"""Tables and pages: what a comparison says, as text, Markdown and one HTML file."""
