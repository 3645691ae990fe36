"""`python -m zhtune` is `zhtune`."""

from zhtune.cli import main

raise SystemExit(main())
