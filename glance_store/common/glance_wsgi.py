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

"""The WSGI application of a Glance that streams through the helpers.

A WSGI server loads this module, or its ``application``, in place of
``glance.wsgi.api``.
"""

import importlib
from importlib import util
from typing import Any

from glance_store.common import adoption


def _application() -> Any:
    adoption.adopt()
    # Glance 28 and 29 have no glance.wsgi.
    if util.find_spec('glance.wsgi') is None:
        return importlib.import_module('glance.common.wsgi_app').init_app()
    return importlib.import_module('glance.wsgi.api').application


# uWSGI looks for this name in the dictionary of the module.
application = _application()
