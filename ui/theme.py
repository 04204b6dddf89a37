"""The one door to the theme: all that comes from it passes here, and nothing of ours goes in.

A newer theme, or another one, changes this file and ``templates/ui/base.html`` and no other.
"""

from __future__ import annotations

from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.sites import UnfoldAdminSite

__all__ = [
    "AdminPasswordChangeForm",
    "ModelAdmin",
    "TabularInline",
    "UnfoldAdminSite",
    "UserChangeForm",
    "UserCreationForm",
]
