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

"""How Sphinx builds the release notes of glance_store."""

extensions = [
    'openstackdocstheme',
    'reno.sphinxext',
]

project = 'glance_store Release Notes'
copyright = 'OpenStack Foundation'
master_doc = 'index'
source_suffix = {'.rst': 'restructuredtext'}

# The notes cover every release, so that neither number means anything here.
release = ''
version = ''

pygments_style = 'native'

html_theme = 'openstackdocs'
htmlhelp_basename = 'glance_storeReleaseNotesdoc'

openstackdocs_repo_name = 'openstack/glance_store'
openstackdocs_bug_project = 'glance-store'
openstackdocs_bug_tag = ''
openstackdocs_auto_name = False
openstackdocs_auto_version = False
