"""All uses of Ray's private interfaces, for Ray 2.60: each function gives its reason, each has a test.

They are separate modules so that a process imports no more of Ray than it needs: ``core`` for
``ray._private``, ``data`` for ``ray.data._internal``, ``train`` for ``ray.train.v2._internal``, ``jobs`` for
what is behind the Jobs API. Other modules of Canopy import nothing private of Ray. When Ray changes, the
tests in ``tests/runtime/ray_internals`` fail by name.
"""
