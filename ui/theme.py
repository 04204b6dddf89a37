"""The one door to the theme: all that comes from it passes here, and nothing of ours goes in.

A newer theme, or another one, changes this file and ``templates/ui/base.html`` and no other.
"""

from __future__ import annotations

from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.sites import UnfoldAdminSite
from unfold.widgets import (
    UnfoldAdminSelectMultipleWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
)

# The template that shows what the palette found.
COMMAND_RESULTS = "unfold/helpers/command_results.html"

__all__ = [
    "COMMAND_RESULTS",
    "AdminPasswordChangeForm",
    "ModelAdmin",
    "TabularInline",
    "UnfoldAdminSelectMultipleWidget",
    "UnfoldAdminSelectWidget",
    "UnfoldAdminSite",
    "UnfoldAdminTextareaWidget",
    "UserChangeForm",
    "UserCreationForm",
]
