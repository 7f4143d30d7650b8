# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Check the links and pictures of the built pages: tox -e docs.

Sphinx checks its own references. The links of the theme, raw addresses and
anchors show in the built pages only. Addresses of other sites are skipped.
"""

from collections.abc import Iterator
import html.parser
import pathlib
import re
import sys
import urllib.parse

# Pictures of these pages; the logo of the theme has no text.
_OURS = re.compile('.*_images/.*')


class Page(html.parser.HTMLParser):
    """The links, the anchors and the pictures without text of a page."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.nameless: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None:
        values = {name: value or '' for name, value in attrs}
        self.anchors |= {values.get('id', ''), values.get('name', '')}
        self.links |= {values[n] for n in ('href', 'src') if n in values}
        if tag == 'img' and not values.get('alt'):
            self.nameless += _OURS.findall(values.get('src', ''))


def problems(folder: pathlib.Path) -> Iterator[str]:
    """Return a line for each problem of the pages in *folder*."""
    pages = {path: Page(path) for path in sorted(folder.rglob('*.html'))}
    if not pages:
        yield f'{folder}: no pages'
    for path, page in pages.items():
        name = path.relative_to(folder)
        for link in sorted(page.links):
            if _is_dead(link, path, pages):
                yield f'{name}: {link} leads nowhere'
        for source in page.nameless:
            yield f'{name}: {source} has no alternative text'


def _is_dead(
    link: str, path: pathlib.Path, pages: dict[pathlib.Path, Page]
) -> bool:
    parts = urllib.parse.urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    target = path
    if parts.path:
        target = (path.parent / urllib.parse.unquote(parts.path)).resolve()
    if not parts.fragment or target not in pages:
        return not target.exists()
    anchor = urllib.parse.unquote(parts.fragment)
    return anchor not in pages[target].anchors


def main() -> int:
    folder = pathlib.Path(sys.argv[1]).resolve()
    found = list(problems(folder))
    for problem in found:
        print(problem)
    print(f'{len(found)} problems with links and pictures')
    return bool(found)


if __name__ == '__main__':
    sys.exit(main())
