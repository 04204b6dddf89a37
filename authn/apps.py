from django.apps import AppConfig


class AuthnConfig(AppConfig):
    name = "authn"
    verbose_name = "Who is calling"

    def ready(self) -> None:
        from authn import checks  # noqa: F401  registers the system checks
        from jobs.rights import Rights, answer_with

        def rights_of(actor: str, verb: str, cluster_id: str) -> Rights:
            # The table of verbs comes with the web framework, which most commands never need.
            from authn.rights import rights_of

            return rights_of(actor, verb, cluster_id)

        answer_with(rights_of)
