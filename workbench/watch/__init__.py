"""What is measured while a model trains, and which faults follow from it: the callback `Watch` and its parts."""

from workbench.watch.watch import Watch as Watch
