# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""How Sphinx builds the documentation of glance_store."""

import importlib.metadata

extensions = [
    'sphinx.ext.autodoc',
    'sphinxcontrib.apidoc',
    'oslo_config.sphinxext',
    'openstackdocstheme',
    'reno.sphinxext',
]

project = 'glance_store'
copyright = 'OpenStack Foundation'
master_doc = 'index'
source_suffix = {'.rst': 'restructuredtext'}

# The theme would ask git and count from 0.0.1 as long as there is no tag.
release = version = importlib.metadata.version('glance_store')

add_module_names = True
pygments_style = 'native'

# -- Reference pages from the code --------------------------------------------

apidoc_module_dir = '../../glance_store'
apidoc_output_dir = 'reference/api'
# Programs have pages of their own; the WSGI module needs an installed Glance.
apidoc_excluded_paths = ['cmd', 'common/glance_wsgi.py', 'tests']
apidoc_separate_modules = True

# The signatures are what callers have relied on for years: they stay free of
# annotations, and the field lists say what goes in and out.
autodoc_typehints = 'none'
autodoc_member_order = 'alphabetical'

# -- HTML ---------------------------------------------------------------------

html_theme = 'openstackdocs'
html_static_path = ['_static']
html_css_files = ['glance_store.css']
htmlhelp_basename = f'{project}doc'

openstackdocs_repo_name = 'openstack/glance_store'
openstackdocs_bug_project = 'glance-store'
openstackdocs_bug_tag = ''
openstackdocs_auto_name = False
openstackdocs_auto_version = False
