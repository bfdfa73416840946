"""Reports: one HTML file each, which needs no network and opens from a disk.

A *page* is a title, a verdict and sections. `page.write` turns it into a file. To add

- a page: a file here with one function that makes a `Page` from the value that it shows (`quantization.py` is one);
- a kind of section: a file here with a frozen dataclass that keeps to `page.Section`, and the template that it names in `templates/`.
  The template gets the dataclass as `section`, and every string in it is escaped.

Kinds there are: `figures.Figures` (before and after, as numbers and bars), `table.Table` (sortable, searchable), `chart.Chart` (a Vega-Lite
chart), `reasons.Reasons` (notes by reason), `manifest.Manifest` (names and values, and commands), and what `quantize` adds to them.
"""
