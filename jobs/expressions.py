import re
class ExpressionError(ValueError): pass
_B=re.compile(r"\{\{(.*?)\}\}")
def _ev(text,names):
    t=text.strip()
    m=re.match(r"(.+?)\s*(==|!=)\s*(.+)\Z",t)
    if m:
        a,b=_ev(m[1],names),_ev(m[3],names)
        return (a==b) if m[2]=="==" else a!=b
    if t[:1] in "'\"" : return t[1:-1]
    if re.match(r"\d+\Z",t): return int(t)
    m=re.match(r"fromJSON\((.*)\)\Z",t)
    if m:
        import json
        return json.loads(_ev(m[1],names))
    cur=names
    for i,p in enumerate(t.split(".")):
        if i==0:
            if p not in names: raise ExpressionError(f"unknown name {p}")
            cur=names[p]
        else:
            cur=cur.get(p,"") if isinstance(cur,dict) else None
    return cur
class Expression:
    def __init__(s,t): s.t=t
def compile(text): return Expression(text)
class Template:
    def __init__(s,t): s.t=t; s.names=frozenset(re.findall(r"[a-z_]\w*", " ".join(_B.findall(t)))); s.is_plain="{{" not in t
    @classmethod
    def parse(cls,t): return cls(t)
    def render(s,names):
        def go(v): return "true" if v is True else "false" if v is False else str(v)
        return _B.sub(lambda m: go(_ev(m[1],names)), s.t)
    def value(s,names):
        m=re.fullmatch(r"\{\{([^{}]*)\}\}",s.t)
        return _ev(m[1],names) if m else s.render(names)
def evaluate_list(text,names):
    m=re.fullmatch(r"\{\{(.*?)\}\}",text.strip())
    v=_ev(m[1] if m else text,names)
    if not isinstance(v,list): raise ExpressionError("does not evaluate to a list")
    return v
def is_false(t): return t.strip()=="false"
